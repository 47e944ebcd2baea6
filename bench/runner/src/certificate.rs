//! The certificate of the encrypted servers, made for one run: ECDSA on P-256, as most servers have.

use std::error::Error;
use std::path::PathBuf;

/// Files in PEM, removed when dropped.
pub(crate) struct Certificate {
    pub(crate) chain: PathBuf,
    pub(crate) key: PathBuf,
}

impl Certificate {
    pub(crate) fn new() -> Result<Self, Box<dyn Error>> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
        let place =
            |what| std::env::temp_dir().join(format!("lodger-bench-{}-{what}.pem", std::process::id()));
        let files = Self { chain: place("chain"), key: place("key") };
        std::fs::write(&files.chain, made.cert.pem())?;
        std::fs::write(&files.key, made.signing_key.serialize_pem())?;
        Ok(files)
    }
}

impl Drop for Certificate {
    fn drop(&mut self) {
        for file in [&self.chain, &self.key] {
            let _ = std::fs::remove_file(file);
        }
    }
}
