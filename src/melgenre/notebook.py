"""What every notebook sets up: errors as sentences and, on Colab, Google Drive as the folder."""

import os
import sys
import warnings
from pathlib import Path

from .errors import MelgenreError

DRIVE_PROMPT = (
    "Colab will ask for access to your Google Drive. The music, the images and the models are "
    "kept there, in the folder melgenre, so that the next notebook neither downloads nor draws "
    "them again. Everything works without it, too."
)
NO_DRIVE = (
    "Google Drive is not connected ({}). The files stay on the disk of this runtime and are "
    "deleted with it."
)


def set_up(*, drive=False):
    """Prepare a notebook: errors of this package appear as one sentence, without a traceback.

    Parameters
    ----------
    drive : bool
        On Colab, connect Google Drive and make it the `project_folder`: for a notebook that writes
        or reads files which are kept from one notebook to the next.
    """
    # Warnings of torch and fastai that are meant for their own developers.
    warnings.filterwarnings("ignore", module=r"(torch|torchvision|fastai)\.")
    show_errors_as_sentences()
    if drive and "google.colab" in sys.modules:
        connect_drive()


def show_errors_as_sentences():
    """Show the message of this package's errors instead of a traceback; `%tb` shows that.

    The cell still fails, so that "Run all" and papermill stop there. Without IPython, nothing
    changes.
    """
    from IPython import get_ipython

    shell = get_ipython()
    if shell is not None:
        shell.set_custom_exc((Exception,), _show_error)


def _show_error(shell, kind, error, traceback, tb_offset=None):
    if not isinstance(error, MelgenreError):
        shell.showtraceback((kind, error, traceback), tb_offset=tb_offset)
        return
    sys.last_type, sys.last_value, sys.last_traceback = kind, error, traceback  # for %tb
    shell._showtraceback(kind, error, [str(error)])


def connect_drive():
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
