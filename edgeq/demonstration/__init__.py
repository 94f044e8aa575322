"""The whole path on data that a Python package ships: scikit-learn's handwritten digits on a virtual board."""
