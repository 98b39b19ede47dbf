//! From a file and the environment to a configuration, with errors that name line and key.

use std::path::{Path, PathBuf};

use super::Config;

/// Why a configuration cannot be used; each message says what, where and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {error}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's words.
        error: std::io::Error,
    },
    /// The file is not TOML of the right shape.
    #[error("{path}: {message}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What, where, and the nearest right key.
        message: String,
    },
    /// The values contradict each other or the machine.
    #[error("{path}: {}", problems.join("\n"))]
    Wrong {
        /// The file.
        path: PathBuf,
        /// Every problem found.
        problems: Vec<String>,
    },
}

impl Config {
    /// Reads and checks a file, with overrides from the environment.
    ///
    /// # Errors
    /// The file cannot be read, has unknown keys, or its values contradict each other.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::Unreadable { path: path.to_owned(), error })?;
        // a supervisor's servers work in other folders: every path must stand without this one
        let absolute = std::path::absolute(path)
            .map_err(|error| ConfigError::Unreadable { path: path.to_owned(), error })?;
        let folder = absolute.parent().unwrap_or(Path::new("/"));
        Self::parse(&text, std::env::vars(), folder).map_err(|problem| match problem {
            Problem::Malformed(message) => ConfigError::Malformed { path: path.to_owned(), message },
            Problem::Wrong(problems) => ConfigError::Wrong { path: path.to_owned(), problems },
        })
    }

    pub(super) fn parse(
        text: &str,
        environment: impl Iterator<Item = (String, String)>,
        folder: &Path,
    ) -> Result<Self, Problem> {
        let explain = |error: &toml::de::Error| Problem::Malformed(explain(error, text));
        // once as it stands, so that an error names a line of the file
        toml::from_str::<Self>(text).map_err(|error| explain(&error))?;
        let mut document: toml::Table = toml::from_str(text).map_err(|error| explain(&error))?;
        override_from(&mut document, environment)?;
        let mut config: Self = document.try_into().map_err(|error: toml::de::Error| {
            Problem::Malformed(format!("after overrides: {}", error.message()))
        })?;
        config.resolve_paths(folder);
        let problems = config.contradictions();
        if problems.is_empty() { Ok(config) } else { Err(Problem::Wrong(problems)) }
    }

    /// Relative paths are relative to the configuration file.
    fn resolve_paths(&mut self, folder: &Path) {
        let resolve = |path: &mut PathBuf| *path = folder.join(&*path);
        resolve(&mut self.cluster.secret_file);
        resolve(&mut self.node.journal);
        resolve(&mut self.postgres.data_dir);
        for path in [
            &mut self.postgres.password_file,
            &mut self.postgres.replication_passfile,
            &mut self.postgres.log_file,
        ] {
            path.iter_mut().for_each(resolve);
        }
        self.retention.segments.iter_mut().for_each(resolve);
        if let Some(redis) = &mut self.redis {
            resolve(&mut redis.config_file);
            redis.password_file.iter_mut().for_each(resolve);
        }
        for dependent in &mut self.dependents {
            dependent.log_file.iter_mut().for_each(resolve);
        }
    }
}

/// What is wrong, before it is said of which file.
pub(super) enum Problem {
    Malformed(String),
    Wrong(Vec<String>),
}

/// `INTERREX_FAILOVER_PROBE_INTERVAL=2s` sets `failover.probe_interval`.
fn override_from(
    document: &mut toml::Table,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<(), Problem> {
    for (variable, value) in environment {
        let Some(rest) = variable.strip_prefix("INTERREX_") else { continue };
        let Some((section, key)) = rest.split_once('_') else { continue };
        let section = section.to_lowercase();
        if !["cluster", "node", "failover", "retention", "postgres", "redis"].contains(&section.as_str()) {
            continue;
        }
        let table = document.entry(section.clone()).or_insert_with(|| toml::Table::new().into());
        let Some(table) = table.as_table_mut() else {
            return Err(Problem::Malformed(format!("{variable}: `{section}` is not a section")));
        };
        // a number or a truth value where it reads as one, a text otherwise
        let parsed = toml::from_str::<toml::Table>(&format!("value = {value}"))
            .ok()
            .and_then(|mut table| table.remove("value"))
            .unwrap_or(toml::Value::String(value));
        table.insert(key.to_lowercase(), parsed);
    }
    Ok(())
}

/// A TOML error with its line, and for an unknown key the nearest right one.
fn explain(error: &toml::de::Error, text: &str) -> String {
    let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
    let place = line.map_or_else(String::new, |line| format!("line {line}: "));
    let message = error.message();
    let mut quoted = message.split('`').skip(1).step_by(2);
    if !message.starts_with("unknown field") {
        return format!("{place}{message}");
    }
    let unknown = quoted.next().unwrap_or_default();
    let known: Vec<&str> = quoted.collect();
    let nearest = known
        .iter()
        .max_by(|a, b| strsim::jaro_winkler(unknown, a).total_cmp(&strsim::jaro_winkler(unknown, b)));
    match nearest {
        Some(nearest) => format!(
            "{place}unknown key `{unknown}`; did you mean `{nearest}`? (keys here: {})",
            known.join(", ")
        ),
        None => format!("{place}unknown key `{unknown}`"),
    }
}
