"""The store on a local file system: media are plain files under one folder."""
