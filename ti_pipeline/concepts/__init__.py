"""What a concept is: its folder, its pictures, and the manifest that says which of them can be used."""
