//! The reference model: the store's verbs over plain maps. What tests compare the durable store with.
