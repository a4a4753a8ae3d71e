"""Adversarial coreset selection behind scikit-learn's fit and predict."""
