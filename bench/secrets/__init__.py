"""Every error there is, with all keys loaded; then every place is searched for them."""
