//! The values that PostgreSQL here would use at its next start, from `postgres -C`, with the arguments of a start and as its user.

use std::path::{Path, PathBuf};

use interrex_adapters::{postgres::PostgresSettings, runtime::RunAs};

use super::machine::programs_folder;
use crate::{
    config::Config,
    daemon::{OnThisMachine, Runtimes as _, postgres_settings},
    doctor::{facts::NextStart, finding::Measured},
};

/// The values that a start reads; an inner `Err` if PostgreSQL would not start.
pub(super) async fn ask(config: &Config, run_as: Measured<RunAs>) -> Measured<Result<NextStart, String>> {
    let runtime = OnThisMachine.postgres(config, run_as?);
    let settings = postgres_settings(config, programs_folder(config)?, runtime, None);
    Ok(values(&settings).await)
}

async fn values(settings: &PostgresSettings) -> Result<NextStart, String> {
    let ask = async |name: &str| settings.at_next_start(name).await.map_err(|error| error.to_string());
    let mut found = NextStart {
        config_file: ask("config_file").await?,
        data_directory: ask("data_directory").await?,
        hba_file: ask("hba_file").await?,
        port: ask("port").await?,
        listen_addresses: ask("listen_addresses").await?,
        unreadable: Vec::new(),
    };
    let mut files = vec![("hba_file", found.hba_file.clone()), ("ident_file", ask("ident_file").await?)];
    if ask("ssl").await? == "on" {
        for name in ["ssl_cert_file", "ssl_key_file", "ssl_ca_file"] {
            files.push((name, ask(name).await?));
        }
    }
    let (run_as, data_dir) = (settings.runtime.user(), settings.data_dir.clone());
    let looking = tokio::task::spawn_blocking(move || {
        let files = files.into_iter().filter(|(_, file)| !file.is_empty());
        files.filter_map(|(name, file)| unreadable(run_as, name, &data_dir.join(file))).collect()
    });
    found.unreadable = looking.await.map_err(|error| error.to_string())?;
    Ok(found)
}

/// Why the server's user cannot read one of its files.
fn unreadable(run_as: RunAs, name: &str, file: &Path) -> Option<String> {
    let path: PathBuf = file.to_owned();
    let opened = run_as.act(move || std::fs::File::open(path).map(drop));
    // PostgreSQL starts without this file
    let may_lack =
        |error: &std::io::Error| name == "ident_file" && error.kind() == std::io::ErrorKind::NotFound;
    opened.err().filter(|error| !may_lack(error)).map(|error| format!("{name} = {}: {error}", file.display()))
}
