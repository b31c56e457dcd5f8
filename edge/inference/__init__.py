"""Turn inputs into results: read them, preprocess them, run the model, and complete what a manifest leaves out."""
