//! HTTP: the collector, the trends API, health, metrics and the live page.
