//! Letters of messages that died before a queue had them: on a route, or on a queue's binding.
