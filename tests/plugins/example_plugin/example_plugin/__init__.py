"""An extension of edge: models that say how bright a picture is."""
