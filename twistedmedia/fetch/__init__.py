"""Other people's URLs: fetched without holding anything up, and never where it must not be."""
