"""What every notebook sets up: errors and warnings as sentences and, on Colab, Google Drive."""

import os
import sys
import warnings
from pathlib import Path

from .errors import MelgenreError, MelgenreWarning

DRIVE_PROMPT = (
    "Colab will ask for access to your Google Drive. The music, the images and the models are "
    "kept there, in the folder melgenre, so that the next notebook finds them. Everything works "
    "without it, too."
)
NO_DRIVE = (
    "Google Drive is not connected ({}). The files stay on the disk of this runtime and are "
    "deleted with it."
)


def set_up(*, drive: bool = False) -> None:
    """Prepare a notebook: show this package's errors and warnings as plain sentences.

    Parameters
    ----------
    drive
        On Colab, connect Google Drive and make it the `project_folder`: for a notebook that writes
        or reads files which are kept from one notebook to the next.
    """
    # Hide deprecation warnings of torch and fastai.
    warnings.filterwarnings("ignore", module=r"(torch|torchvision|fastai)\.")
    show_warnings_as_sentences()
    show_errors_as_sentences()
    if drive and "google.colab" in sys.modules:
        connect_drive()


def show_warnings_as_sentences() -> None:
    """Print the message of each of this package's warnings, without the file that gave it.

    A cell of a notebook prints each sentence once, even if it trains several models.
    """
    warnings.simplefilter("always", MelgenreWarning)
    show, shown = warnings.showwarning, set()

    def show_sentence(message, category, *others, **options):
        if not issubclass(category, MelgenreWarning):
            show(message, category, *others, **options)
        elif str(message) not in shown:
            print(message)
            if shell is not None:
                shown.add(str(message))

    shell = _notebook_shell()
    if shell is not None:
        shell.events.register("pre_run_cell", lambda _: shown.clear())
    warnings.showwarning = show_sentence


def show_errors_as_sentences() -> None:
    """Show the message of this package's errors instead of a traceback; `%tb` shows that.

    The cell still fails, so that "Run all" and papermill stop there. Outside IPython nothing
    changes.
    """
    shell = _notebook_shell()
    if shell is not None:
        shell.set_custom_exc((Exception,), _show_error)


def _notebook_shell():
    """IPython's shell; None outside notebooks and IPython."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython else None


def _show_error(shell, kind, error, traceback, tb_offset=None):
    if not isinstance(error, MelgenreError):
        shell.showtraceback((kind, error, traceback), tb_offset=tb_offset)
        return
    sys.last_type, sys.last_value, sys.last_traceback = kind, error, traceback  # for %tb
    shell._showtraceback(kind, error, [str(error)])


def connect_drive() -> None:
    """On Colab: keep `data` and `models` in the folder `melgenre` of Google Drive.

    Without access, everything stays in the working directory.
    """
    from google.colab import drive

    print(DRIVE_PROMPT)
    here = Path.cwd()  # /content, unless the user has left it
    home = here / "drive" / "MyDrive" / "melgenre"
    try:
        drive.mount(str(here / "drive"))
        home.mkdir(exist_ok=True)
    except Exception as error:  # google.colab raises various classes when access is denied
        print(NO_DRIVE.format(error))
        return
    os.environ["MELGENRE_HOME"] = str(home)
    # Writing a thousand clips to Drive takes many minutes, unpacking them here takes seconds. So
    # only the archive is kept on Drive, and each runtime unpacks it again.
    os.environ["MELGENRE_UNPACKED"] = str(here / "unpacked")
