"""Fields by which one engine or another would generate more than the limit of a request.

Each is JSON to be put behind `"max_tokens": 8` in the body of a request, so that duplicate keys are
among them; with it the most tokens that may be generated then.
"""

SMUGGLED = [
    ('"n_predict": 64', 8),
    ('"n_predict": -1', 8),
    ('"max_completion_tokens": 64', 8),
    ('"max_completion_tokens": 4', 4),
    ('"max_output_tokens": 64, "max_new_tokens": 64, "num_predict": 64', 8),
    ('"n": 3', 24),
    ('"n_cmpl": 3', 8),
    ('"n": 1, "n": 3', 24),
    ('"best_of": 3', 8),
    ('"min_tokens": 64, "ignore_eos": true', 8),
    ('"max_tokens": 12', 12),
    ('"max\\u005ftokens": 12', 12),
    ('"n_predict": 64, "n_predict": -1', 8),
    ('"prompt": ["one", "two", "three"]', 8),
    ('"t_max_predict_ms": 100000, "cache_prompt": false, "id_slot": 2', 8),
    ('"stream_options": {"include_usage": false}', 8),
]
