//! What tests of JetStream share.
