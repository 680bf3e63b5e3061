"""The public names, for editors and for `__init__.py`, which imports each when it is first used."""

from .confusion.browser import (
    ConfusionBrowser as ConfusionBrowser,
)
from .confusion.browser import (
    plot_confusion_matrix as plot_confusion_matrix,
)
from .data.annotations import (
    AnnotationError as AnnotationError,
)
from .data.annotations import (
    apply_annotations as apply_annotations,
)
from .data.annotations import (
    load_annotations as load_annotations,
)
from .data.annotations import (
    save_annotation as save_annotation,
)
from .data.audio import (
    SAMPLE_RATE as SAMPLE_RATE,
)
from .data.audio import (
    AudioError as AudioError,
)
from .data.audio import (
    audio_duration as audio_duration,
)
from .data.audio import (
    iter_windows as iter_windows,
)
from .data.audio import (
    load_audio as load_audio,
)
from .data.audio import (
    play as play,
)
from .data.collection import (
    CollectionError as CollectionError,
)
from .data.collection import (
    describe_collection as describe_collection,
)
from .data.collection import (
    find_tracks as find_tracks,
)
from .data.collection import (
    load_collection as load_collection,
)
from .data.download import (
    DownloadError as DownloadError,
)
from .data.download import (
    download as download,
)
from .data.download import (
    unpack as unpack,
)
from .data.duplicates import (
    find_duplicates as find_duplicates,
)
from .data.gtzan import (
    gtzan_metadata as gtzan_metadata,
)
from .data.gtzan import (
    verify_gtzan as verify_gtzan,
)
from .data.mel_settings import (
    ImageError as ImageError,
)
from .data.mel_settings import (
    MelSettings as MelSettings,
)
from .data.mel_settings import (
    check_image as check_image,
)
from .data.splits import (
    PROTOCOLS as PROTOCOLS,
)
from .data.splits import (
    SplitError as SplitError,
)
from .data.splits import (
    describe_leaks as describe_leaks,
)
from .data.splits import (
    find_leaks as find_leaks,
)
from .data.splits import (
    group_split as group_split,
)
from .data.splits import (
    held_out as held_out,
)
from .data.splits import (
    iter_folds as iter_folds,
)
from .data.splits import (
    protocols_for as protocols_for,
)
from .data.splits import (
    random_split as random_split,
)
from .data.synthetic.collection import (
    make_synthetic_collection as make_synthetic_collection,
)
from .errors import MelgenreError as MelgenreError
from .evaluation.metrics import (
    EvaluationError as EvaluationError,
)
from .evaluation.metrics import (
    bootstrap_ci as bootstrap_ci,
)
from .evaluation.metrics import (
    confusion_matrix as confusion_matrix,
)
from .evaluation.metrics import (
    evaluate as evaluate,
)
from .evaluation.metrics import (
    format_score as format_score,
)
from .evaluation.metrics import (
    paired_permutation_test as paired_permutation_test,
)
from .evaluation.metrics import (
    recall_by_genre as recall_by_genre,
)
from .evaluation.results import (
    ResultsError as ResultsError,
)
from .evaluation.results import (
    load_predictions as load_predictions,
)
from .evaluation.results import (
    load_results as load_results,
)
from .evaluation.results import (
    record_result as record_result,
)
from .evaluation.results import (
    results_folder as results_folder,
)
from .evaluation.results import (
    summarise_results as summarise_results,
)
from .experiments import (
    BASELINES as BASELINES,
)
from .experiments import (
    apply_protocol as apply_protocol,
)
from .experiments import (
    compare_initialisations as compare_initialisations,
)
from .experiments import (
    run_baseline as run_baseline,
)
from .experiments import (
    run_network as run_network,
)
from .features.descriptors import (
    DESCRIPTORS as DESCRIPTORS,
)
from .features.descriptors import (
    compute_descriptors as compute_descriptors,
)
from .features.descriptors import (
    find_descriptors as find_descriptors,
)
from .features.descriptors import (
    load_descriptors as load_descriptors,
)
from .features.images import (
    extract_melspectrograms as extract_melspectrograms,
)
from .features.images import (
    load_center as load_center,
)
from .features.melspectrogram import (
    log_melspectrogram as log_melspectrogram,
)
from .features.melspectrogram import (
    melspectrogram_image as melspectrogram_image,
)
from .files import (
    project_folder as project_folder,
)
from .inference.batch import (
    classify_folder as classify_folder,
)
from .inference.classifier import (
    GenreClassifier as GenreClassifier,
)
from .inference.classifier import (
    Prediction as Prediction,
)
from .inference.model_folder import (
    ModelError as ModelError,
)
from .inference.timeline import (
    plot_timeline as plot_timeline,
)
from .networks import (
    ArchitectureError as ArchitectureError,
)
from .training.baselines import (
    LogisticRegression as LogisticRegression,
)
from .training.baselines import (
    NeuralNetwork as NeuralNetwork,
)
from .training.export import (
    export_learner as export_learner,
)
from .training.export import (
    load_exported as load_exported,
)
from .training.export import (
    load_split as load_split,
)
from .training.learner import (
    RECIPES as RECIPES,
)
from .training.learner import (
    describe_training as describe_training,
)
from .training.learner import (
    fit as fit,
)
from .training.learner import (
    genre_learner as genre_learner,
)
from .training.learner import (
    image_dataloaders as image_dataloaders,
)
from .training.learner import (
    predict_tracks as predict_tracks,
)
from .training.transfer import (
    transfer_learner as transfer_learner,
)

__version__: str
