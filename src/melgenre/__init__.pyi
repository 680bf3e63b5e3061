"""The public names, for editors and for `__init__.py`, which imports each when it is first used."""

from .confusion.browser import (
    ConfusionBrowser as ConfusionBrowser,
)
from .confusion.matrix import (
    plot_confusion_matrix as plot_confusion_matrix,
)
from .data.annotations import (
    AnnotationError as AnnotationError,
    apply_annotations as apply_annotations,
    load_annotations as load_annotations,
    save_annotation as save_annotation,
)
from .data.archives import (
    unpack as unpack,
)
from .data.audio import (
    SAMPLE_RATE as SAMPLE_RATE,
    AudioError as AudioError,
    audio_duration as audio_duration,
    iter_windows as iter_windows,
    load_audio as load_audio,
    play as play,
)
from .data.citations import CitationError as CitationError, cite as cite
from .data.collection import (
    describe_collection as describe_collection,
    load_collection as load_collection,
)
from .data.download import (
    DownloadError as DownloadError,
    download as download,
)
from .data.duplicates import (
    find_duplicates as find_duplicates,
)
from .data.gtzan import (
    gtzan_metadata as gtzan_metadata,
    verify_gtzan as verify_gtzan,
)
from .data.leaks import (
    LeakWarning as LeakWarning,
    describe_leaks as describe_leaks,
    find_leaks as find_leaks,
)
from .data.mel_settings import (
    ImageError as ImageError,
    MelSettings as MelSettings,
    check_image as check_image,
    image_settings as image_settings,
)
from .data.metadata import CollectionError as CollectionError
from .data.protocols import (
    PROTOCOLS as PROTOCOLS,
    Protocol as Protocol,
    apply_protocol as apply_protocol,
    protocols_for as protocols_for,
    strictest_protocol as strictest_protocol,
)
from .data.shards import load_shards as load_shards
from .data.splits import (
    SplitError as SplitError,
    group_split as group_split,
    held_out as held_out,
    iter_folds as iter_folds,
    random_split as random_split,
)
from .data.synthetic.collection import (
    make_synthetic_collection as make_synthetic_collection,
)
from .data.table import probabilities as probabilities
from .data.tracks import (
    CollectionWarning as CollectionWarning,
    find_tracks as find_tracks,
)
from .errors import MelgenreError as MelgenreError, MelgenreWarning as MelgenreWarning
from .evaluation.bootstrap import bootstrap_ci as bootstrap_ci
from .evaluation.fixed_features import (
    FeatureError as FeatureError,
    evaluate_features as evaluate_features,
)
from .evaluation.metrics import (
    EvaluationError as EvaluationError,
    confusion_matrix as confusion_matrix,
    evaluate as evaluate,
    format_score as format_score,
    paired_permutation_test as paired_permutation_test,
    recall_by_genre as recall_by_genre,
)
from .evaluation.report import (
    compare_models as compare_models,
    plot_published as plot_published,
    plot_results as plot_results,
    plot_slopes as plot_slopes,
    results_table as results_table,
)
from .evaluation.results import (
    ResultsError as ResultsError,
    load_predictions as load_predictions,
    load_results as load_results,
    record_run as record_run,
    results_folder as results_folder,
    summarise_results as summarise_results,
)
from .evaluation.run import Run as Run
from .experiments import (
    BASELINES as BASELINES,
    compare_initialisations as compare_initialisations,
    run_baseline as run_baseline,
    train_and_evaluate as train_and_evaluate,
)
from .features.descriptors import (
    DESCRIPTORS as DESCRIPTORS,
    compute_descriptors as compute_descriptors,
    find_descriptors as find_descriptors,
    load_descriptors as load_descriptors,
)
from .features.images import (
    extract_melspectrograms as extract_melspectrograms,
    images_folder as images_folder,
    load_center as load_center,
)
from .features.melspectrogram import (
    log_melspectrogram as log_melspectrogram,
    melspectrogram_image as melspectrogram_image,
)
from .features.shards import extract_shards as extract_shards
from .files import (
    project_folder as project_folder,
)
from .inference.batch import (
    classify_folder as classify_folder,
)
from .inference.classifier import (
    GenreClassifier as GenreClassifier,
)
from .inference.embeddings import (
    EmbeddingError as EmbeddingError,
    Embeddings as Embeddings,
    embed_folder as embed_folder,
    load_embeddings as load_embeddings,
    nearest_songs as nearest_songs,
)
from .inference.model_folder import (
    ModelError as ModelError,
)
from .inference.music_map import (
    MusicMap as MusicMap,
    play_map as play_map,
    plot_map as plot_map,
)
from .inference.prediction import (
    Analysis as Analysis,
    Prediction as Prediction,
)
from .networks import (
    ArchitectureError as ArchitectureError,
)
from .notebook import set_up as set_up
from .training.baselines import (
    LogisticRegression as LogisticRegression,
    NeuralNetwork as NeuralNetwork,
    gradient_error as gradient_error,
)
from .training.dataloaders import image_dataloaders as image_dataloaders
from .training.distributed import ProcessError as ProcessError
from .training.export import export_learner as export_learner
from .training.exported import load_exported as load_exported, load_split as load_split
from .training.fit import fit as fit
from .training.learner import genre_learner as genre_learner, predict_tracks as predict_tracks
from .training.network_plots import (
    plot_feature_maps as plot_feature_maps,
    plot_network as plot_network,
)
from .training.plots import (
    RecordError as RecordError,
    plot_learning_curves as plot_learning_curves,
    plot_ood_scores as plot_ood_scores,
    plot_reliability as plot_reliability,
)
from .training.recipes import RECIPES as RECIPES, Recipe as Recipe, get_recipe as get_recipe
from .training.transfer import (
    transfer_learner as transfer_learner,
)

__version__: str
