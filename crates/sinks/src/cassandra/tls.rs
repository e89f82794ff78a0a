//! Connections by TLS, where the program was built with it: the driver brings a cryptography of its
//! own, which takes longer to compile than the driver itself.

use super::cluster::ClusterError;
use scylla::client::session_builder::SessionBuilder;
use std::path::Path;

/// The builder, with TLS that trusts the authorities of a PEM file.
#[cfg(feature = "cassandra-tls")]
pub(super) fn encrypted(
    builder: SessionBuilder,
    authorities: &Path,
) -> Result<SessionBuilder, ClusterError> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    use std::sync::Arc;
    let refused = |error: &dyn std::fmt::Display| {
        ClusterError::Refused(format!("{}: {error}", authorities.display()))
    };
    let mut roots = rustls::RootCertStore::empty();
    let certificates =
        CertificateDer::pem_file_iter(authorities).map_err(|error| refused(&error))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| refused(&error))?;
        roots.add(certificate).map_err(|error| refused(&error))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| refused(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(builder.tls_context(Some(Arc::new(config))))
}

/// This program was built without.
#[cfg(not(feature = "cassandra-tls"))]
pub(super) fn encrypted(
    _builder: SessionBuilder,
    _authorities: &Path,
) -> Result<SessionBuilder, ClusterError> {
    let words = "this program was built without TLS for Cassandra; build it with \
                 `cargo build --release --features cassandra-tls`";
    Err(ClusterError::Refused(words.to_owned()))
}
