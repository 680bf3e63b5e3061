"""An exported model -> the genres of any recording (notebooks 07 and 08)."""
