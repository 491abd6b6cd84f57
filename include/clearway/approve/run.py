"""Record an answer for exactly these bytes. A rejection is an answer, not a failure."""

from clearway.approve.spec import Inputs, Outputs
from clearway.contracts.errors import ConfigError, IntegrityError, NotApproved
from clearway.contracts.verdict import Verdict
from clearway.infra.approvals import LETS_THROUGH, Approval, Decision, record_approval
from clearway.infra.environment import Environment
from clearway.infra.evaluations import EvaluationHead, read_evaluation
from clearway.infra.faults import fault
from clearway.infra.layout import Layout
from clearway.infra.storage import open_storage
from clearway.product import LoadedProduct


def run(inputs: Inputs, *, product: LoadedProduct, env: Environment) -> Outputs:
    """Bind the answer to the digests and store it; the same answer again finds the first record.

    Raises: ConfigError for an unknown answer, IntegrityError if the evaluation is not the one named or judged another
        model, NotApproved for an answer that may not be given here, or a second, different one.
    """
    storage, layout = open_storage(env.store_root), Layout(env.store_root, product.name)
    evaluation = read_evaluation(storage, layout, release_id=inputs.release_id, digest=inputs.evaluation_digest)
    approval = decide(inputs, evaluation, risk_tier=product.spec.risk_tier, needs_person=product.spec.needs_person)
    fault("approve.before_record")
    uri, stored = record_approval(storage, layout, approval)
    fault("approve.after_record")
    if env.aws.model_registry:
        from clearway.infra.aws.model_registry import mirror_approval  # noqa: PLC0415 - boto3

        mirror_approval(env, stored, model=inputs.model)
    lets_through = stored.answer in LETS_THROUGH
    return Outputs(
        verdict=Verdict.PASS if lets_through else Verdict.FAIL,
        reason=f"{stored.answer.value} by {stored.answered_by}" + (f": {stored.note}" if stored.note else ""),
        model=inputs.model,
        approval_uri=uri,
    )


def decide(inputs: Inputs, evaluation: EvaluationHead, *, risk_tier: str, needs_person: bool) -> Approval:
    """The record to store, or a refusal; pure.

    An inconclusive evaluation needs a person whatever the tier, and a failed one cannot be waved through at all.
    """
    answer = _answer(inputs.answer)
    if evaluation.model_digest != inputs.model.digest:
        raise IntegrityError(
            f"the evaluation judged model {evaluation.model_digest}, not {inputs.model.digest}; evaluate it first"
        )
    is_required = needs_person or evaluation.verdict is not Verdict.PASS
    if answer in LETS_THROUGH and evaluation.verdict not in {Verdict.PASS, Verdict.INCONCLUSIVE}:
        raise NotApproved(
            f"the evaluation of {inputs.model.digest} ended {evaluation.verdict.value!r}; only pass, or inconclusive "
            "with a person's answer, can be approved; train a better model"
        )
    if answer is Decision.NOT_REQUIRED and is_required:
        raise NotApproved(
            f"risk tier {risk_tier!r} with evaluation {evaluation.verdict.value!r} needs an answer, got none"
        )
    if answer is Decision.AUTO and evaluation.verdict is not Verdict.PASS:
        raise NotApproved(
            "an inconclusive evaluation needs a person; the automatic answer covers passed evaluations only"
        )
    if not inputs.answered_by.strip():
        raise NotApproved("an answer without a name is no answer; fill answered_by")
    return Approval(
        product=inputs.product,
        release_id=inputs.release_id,
        model_digest=inputs.model.digest,
        evaluation_digest=inputs.evaluation_digest,
        answer=answer,
        answered_by=inputs.answered_by,
        note=inputs.note,
        is_required=is_required,
        risk_tier=risk_tier,
    )


def _answer(text: str) -> Decision:
    try:
        return Decision(text)
    except ValueError as error:
        raise ConfigError(f"answer {text!r} is unknown; allowed: {[d.value for d in Decision]}") from error
