"""What the DAG pages say."""

INGEST = """\
### {title}: ingest
Lands one batch per {every}. Landing the same bytes again changes nothing; other bytes under the same name stop the run;
a late, empty, truncated or schema-changed batch is set aside with its reason and the run ends green.

Runs on the batch clock and as a backfill. Updates `clearway://{name}/batches`. Owner: {owner}.
"""
RELEASE = """\
### {title}: release
Raw data to live traffic: ingest → preprocess → validate → tune → train → evaluate → approve → deploy. What the
candidate is held against (yardsticks) is fitted while it is trained.

Started by hand (the form asks for the moment whose knowledge counts), by a retraining decision, by a request file in
the drop folder, or on a schedule. A model that fails its gates ends the run **green** with verdict `fail`, the champion
untouched. Risk tier: {tier}. Owner: {owner}.
"""
MONITOR = """\
### {title}: monitor
For each landed batch: features, predictions through the live endpoint, drift and performance reports, and the decision
whether to retrain, which updates `clearway://{name}/retrain`. Owner: {owner}.
"""
ROLLBACK = """\
### {title}: rollback
The previous champion takes all traffic again; needs neither the model registry nor raw data. Owner: {owner}.
"""
RECONCILE = """\
### Reconcile
Announces retraining decisions that no release has taken, repairs the model alias from the release document, ends stale
leases, and stops jobs that nobody watches any more.
"""
