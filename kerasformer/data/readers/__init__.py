"""Files of every kind -> their texts, records and columns, before any check of the values."""
