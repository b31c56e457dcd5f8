"""An extension of edge: models that tell how bright a picture is."""
