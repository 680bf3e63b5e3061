"""A fake Google Drive: the folder in COLAB_DRIVE. Without this variable, access is denied."""

import os


def mount(mountpoint):
    if "COLAB_DRIVE" not in os.environ:
        raise ValueError("mount failed")
    os.mkdir(mountpoint)
    os.symlink(os.environ["COLAB_DRIVE"], os.path.join(mountpoint, "MyDrive"))
    print(f"Mounted at {mountpoint}")
