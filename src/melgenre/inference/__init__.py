"""An exported model -> the genres of any recording (notebook 07)."""
