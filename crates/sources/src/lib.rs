//! Where records come from: files, the embedded log, and the decoding of their JSON.
pub mod embedded;
pub mod files;
pub mod json;
