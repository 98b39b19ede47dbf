//! Reads a configuration from a file and the environment, with errors that name line and key.

use std::path::{Path, PathBuf};

use super::{
    Config,
    environment::{self, Override},
};

/// Why a configuration cannot be used. Each message says what is wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {error}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        error: std::io::Error,
    },
    /// The file is not valid TOML, or has wrong keys or types.
    #[error("{path}: {message}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, where, and the nearest known key.
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
        // a supervisor's servers work in other folders: every path must be absolute
        let absolute = std::path::absolute(path)
            .map_err(|error| ConfigError::Unreadable { path: path.to_owned(), error })?;
        let folder = absolute.parent().unwrap_or(Path::new("/"));
        Self::parse(&text, &Override::of_this_process(), folder).map_err(|problem| match problem {
            Problem::Malformed(message) => ConfigError::Malformed { path: path.to_owned(), message },
            Problem::Wrong(problems) => ConfigError::Wrong { path: path.to_owned(), problems },
        })
    }

    pub(super) fn parse(text: &str, overrides: &[Override], folder: &Path) -> Result<Self, Problem> {
        let explain = |error: &toml::de::Error| Problem::Malformed(explain(error, text));
        // first without overrides, so that an error names a line of the file
        toml::from_str::<Self>(text).map_err(|error| explain(&error))?;
        let document: toml::Table = toml::from_str(text).map_err(|error| explain(&error))?;
        let mut config = environment::overridden(&document, overrides)?;
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
            &mut self.rejoin.keep_in,
            &mut self.postgres.bin_dir,
            &mut self.postgres.config_file,
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
            // a bare name is looked for on the PATH
            redis.program.iter_mut().filter(|program| program.components().count() > 1).for_each(resolve);
        }
        for dependent in &mut self.dependents {
            dependent.log_file.iter_mut().for_each(resolve);
        }
    }
}

/// What is wrong with a configuration, without the name of its file.
pub(super) enum Problem {
    Malformed(String),
    Wrong(Vec<String>),
}

/// A TOML error with its line and key, and for an unknown key the nearest known key.
fn explain(error: &toml::de::Error, text: &str) -> String {
    let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
    let key = error.span().and_then(|span| key_before(text, span.start));
    let place = match (line, key) {
        (Some(line), Some(key)) => format!("line {line}, {key}: "),
        (Some(line), None) => format!("line {line}: "),
        (None, _) => String::new(),
    };
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

/// The key of the value at an offset, as the file spells it.
fn key_before(text: &str, value: usize) -> Option<&str> {
    let line_begins = text.get(..value)?.rfind('\n').map_or(0, |end| end + 1);
    text.get(line_begins..value)?
        .strip_suffix("= ")
        .or_else(|| text.get(line_begins..value)?.strip_suffix('='))
        .map(str::trim)
}
