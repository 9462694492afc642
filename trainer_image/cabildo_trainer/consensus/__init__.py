"""Many models, one result: robust rules, soups and merges over streams of tensors.

The flow: `sources` -> `merging.merge` -> a `rule` decides from a `passes.Session` -> its `Decision`
holds a recipe (`recipes`) -> one streaming pass applies the recipe -> a `sinks` sink. The same
inputs give the same bits on any machine, thread count and shard layout.
"""
