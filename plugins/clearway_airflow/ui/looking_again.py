"""The script of a page that follows a rollout: it fetches the page again and puts in what is new.

Forms are left alone while somebody writes into one or has it open, so a typed reason is never lost. Without JavaScript
the page stays as it is, and has a link that loads it again.
"""

from base64 import b64encode
from hashlib import sha256

EVERY_S = 5

SCRIPT = (
    """
const isUsed = part => part.contains(document.activeElement) || part.querySelector("details[open]") !== null;
async function look() {
  try {
    const answer = await fetch(location.href, {cache: "no-store"});
    if (answer.ok) {
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const part of document.querySelectorAll("[data-live]")) {
        const next = fresh.getElementById(part.id);
        if (next && next.innerHTML !== part.innerHTML && !(part.dataset.live === "orders" && isUsed(part)))
          part.replaceWith(document.adoptNode(next));
      }
    }
  } catch (error) { /* the server is away: what is shown stays */ }
  setTimeout(look, EVERY_MS);
}
setTimeout(look, EVERY_MS);
"""
).replace("EVERY_MS", str(EVERY_S * 1000))

# The only script these pages may run: its own digest stands in the policy, so nothing stored can act.
POLICY = f"script-src 'sha256-{b64encode(sha256(SCRIPT.encode()).digest()).decode()}'; connect-src 'self'"
AGAIN = '<noscript><p><a href="">Look again</a></p></noscript>'
