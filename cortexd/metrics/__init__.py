"""WHAT IS COUNTED: the instruments of the product contract, on prometheus-client."""
