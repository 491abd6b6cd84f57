"""Fit a language model: what its section of product.yaml means to the training engine."""

from collections.abc import Callable

from clearway.engine.keeping import Keeping
from clearway.engine.loop import Report, Trained, train
from clearway.engine.plan import DataParallel, Plan, Precision, Recipe, Schedule
from clearway.engine.world import World
from clearway.language.shape import LanguageShape
from clearway.language.stream import TokenStream
from clearway.language.task import LanguageTask
from clearway.language.tokens import VOCAB_SIZE
from clearway.product_language import Language

# Of LLaMA (arXiv 2302.13971, section 2.2): gradients clipped at 1, decay of squares 0.95, cosine down to a tenth. Its
# warm-up was 2000 steps of hundreds of thousands; a share suits runs of hundreds of steps as well.
CLIP_NORM, BETA_SQUARE, WARMUP_SHARE = 1.0, 0.95, 0.05


def fit(
    stream: TokenStream,
    settings: Language,
    *,
    plan: Plan,
    world: World,
    keeping: Keeping | None,
    should_stop: Callable[[], bool],
    on_report: Callable[[Report], None] | None = None,
) -> Trained:
    """Train to the end, or until any rank is asked to stop. Raises: as `engine.loop.train`."""
    return train(
        LanguageTask(shape=shape_of(settings), stream=stream, seed=settings.seed),
        recipe_of(settings),
        plan,
        world=world,
        keeping=keeping,
        should_stop=should_stop,
        on_report=on_report,
    )


def shape_of(settings: Language) -> LanguageShape:
    """Sizes of the network. Raises: ConfigError if they do not fit together."""
    return LanguageShape(
        vocab_size=VOCAB_SIZE,
        context_length=settings.context_length,
        num_layers=settings.num_layers,
        dim=settings.dim,
        num_heads=settings.num_heads,
        num_kv_heads=settings.num_kv_heads,
        hidden_dim=settings.hidden_dim,
        is_tied=settings.is_tied,
    )


def recipe_of(settings: Language) -> Recipe:
    """What decides the result."""
    return Recipe(
        seed=settings.seed,
        batch_size=settings.batch_size,
        num_epochs=settings.num_epochs,
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        schedule=Schedule.COSINE,
        warmup_share=WARMUP_SHARE,
        beta_square=BETA_SQUARE,
        clip_norm=CLIP_NORM,
    )


def plan_of(world: World, *, is_bfloat16: bool) -> Plan:
    """One device computes alone; several share parameters, gradients and optimizer state."""
    return Plan(
        data_parallel=DataParallel.SINGLE if world.size == 1 else DataParallel.FSDP2,
        precision=Precision.BFLOAT16 if is_bfloat16 else Precision.FLOAT32,
    )
