//! `INTERREX_<SECTION>_<KEY>` in the environment overrides `section.key` of the file, for every section and key.

use std::fmt;

use serde::{
    Deserialize,
    de::{self, Deserializer, Visitor},
    forward_to_deserialize_any,
};

use super::{Config, reading::Problem};

const PREFIX: &str = "INTERREX_";

/// One variable of the environment that names a section of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// The variable.
    pub variable: String,
    section: &'static str,
    key: String,
    value: String,
}

impl Override {
    /// The overrides among variables. Other variables with the same prefix, such as `INTERREX_LOG`, are not for the configuration.
    pub fn among(variables: impl Iterator<Item = (String, String)>) -> Vec<Self> {
        let sections = field_names::<Config>();
        let mut found: Vec<Self> = variables
            .filter_map(|(variable, value)| {
                let rest = variable.strip_prefix(PREFIX)?.to_lowercase();
                let section = sections
                    .iter()
                    .find(|section| rest.strip_prefix(**section).is_some_and(|rest| rest.starts_with('_')))?;
                let key = rest.get(section.len() + 1..)?.to_owned();
                Some(Self { variable, section, key, value })
            })
            .collect();
        found.sort_by(|one, other| one.variable.cmp(&other.variable));
        found
    }

    /// The overrides in the environment of this process.
    #[must_use]
    pub fn of_this_process() -> Vec<Self> {
        // a variable that is not UTF-8 cannot name a key
        let variables = std::env::vars_os();
        Self::among(
            variables.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
        )
    }

    fn put_into(&self, document: &mut toml::Table, value: toml::Value) -> Result<(), Problem> {
        let Self { variable, section, key, .. } = self;
        let place = document.entry(*section).or_insert_with(|| toml::Table::new().into());
        let table = place.as_table_mut().ok_or_else(|| {
            Problem::Malformed(format!(
                "{variable}: [[{section}]] is a list, and a variable cannot override a list: change the file"
            ))
        })?;
        table.insert(key.clone(), value);
        Ok(())
    }

    /// The value as TOML, for example a number or a boolean, if it reads as that.
    fn as_it_reads(&self) -> Option<toml::Value> {
        let mut table = toml::from_str::<toml::Table>(&format!("value = {}", self.value)).ok()?;
        table.remove("value")
    }

    fn as_text(&self) -> toml::Value {
        toml::Value::String(self.value.clone())
    }
}

/// The document with every override.
pub(super) fn overridden(document: &toml::Table, overrides: &[Override]) -> Result<Config, Problem> {
    let mut document = document.clone();
    for each in overrides {
        each.put_into(&mut document, each.as_it_reads().unwrap_or_else(|| each.as_text()))?;
    }
    let mut read: Result<Config, _> = document.clone().try_into();
    // a name may be made of digits
    let may_be_text =
        |each: &&Override| each.as_it_reads().is_some_and(|value| !value.is_array() && !value.is_table());
    for each in overrides.iter().filter(may_be_text) {
        if read.is_ok() {
            break;
        }
        let mut as_text = document.clone();
        each.put_into(&mut as_text, each.as_text())?;
        let again: Result<Config, toml::de::Error> = as_text.clone().try_into();
        // if the error is now about another key, this key was right as a text
        if again.as_ref().err().map(one_line).as_deref().and_then(key_of)
            != read.as_ref().err().map(one_line).as_deref().and_then(key_of)
        {
            (document, read) = (as_text, again);
        }
    }
    read.map_err(|error| {
        let variables: Vec<&str> = overrides.iter().map(|each| each.variable.as_str()).collect();
        Problem::Malformed(format!("after {}: {}", variables.join(", "), one_line(&error)))
    })
}

/// With the key, which the message alone does not have.
fn one_line(error: &toml::de::Error) -> String {
    error.to_string().lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

/// The key that such a line names.
fn key_of(line: &str) -> Option<&str> {
    line.rsplit_once("in `").map(|(_, key)| key.trim_end_matches('`'))
}

/// The names of a type's fields, for which its `Deserialize` asks.
fn field_names<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    match T::deserialize(Asked) {
        Err(Fields(names)) => names,
        Ok(_) => &[],
    }
}

/// A deserializer that answers with the fields it was asked for.
struct Asked;

/// The answer, in the shape of an error.
#[derive(Debug)]
struct Fields(&'static [&'static str]);

impl fmt::Display for Fields {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.join(", "))
    }
}

impl std::error::Error for Fields {}

impl de::Error for Fields {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self(&[])
    }
}

impl<'de> Deserializer<'de> for Asked {
    type Error = Fields;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Fields> {
        Err(Fields(&[]))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Fields> {
        Err(Fields(fields))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{
        super::{
            tests::{MINIMAL, parse as parsed},
            *,
        },
        *,
    };

    fn parse(variables: &[(&str, &str)]) -> Result<Config, String> {
        // the paths of Redis are only there with its section
        parsed(&format!("{MINIMAL}[redis]\nconfig_file = \"redis.conf\"\n"), variables)
    }

    #[test]
    fn every_key_of_every_section_is_overridden_by_its_variable() {
        let sections = [
            ("cluster", field_names::<ClusterConfig>()),
            ("node", field_names::<NodeConfig>()),
            ("failover", field_names::<FailoverConfig>()),
            ("rejoin", field_names::<RejoinConfig>()),
            ("retention", field_names::<RetentionConfig>()),
            ("postgres", field_names::<PostgresConfig>()),
            ("redis", field_names::<RedisConfig>()),
        ];
        let lists = ["dependents", "hooks", "peers"];
        let mut all: Vec<&str> = sections.iter().map(|(section, _)| *section).chain(lists).collect();
        let mut known = field_names::<Config>().to_vec();
        all.sort_unstable();
        known.sort_unstable();
        assert_eq!(all, known, "a new section belongs into this test");
        for (section, keys) in sections {
            assert!(!keys.is_empty(), "{section}");
            for key in keys {
                // no key takes a list: that it is refused shows that it was read
                let variable = format!("INTERREX_{section}_{key}").to_uppercase();
                let error = parse(&[(&variable, "[[1]]")]).unwrap_err();
                assert!(
                    error.contains(&variable) && error.contains(&format!("`{section}.{key}`")),
                    "{error}"
                );
            }
        }
        let config =
            parse(&[("INTERREX_REJOIN_AUTOMATIC", "true"), ("INTERREX_REJOIN_KEEP_IN", "kept")]).unwrap();
        assert!(config.rejoin.automatic);
        assert_eq!(config.kept_folder(), Path::new("/etc/interrex/kept"));
    }

    #[test]
    fn a_text_of_digits_stays_a_text_and_what_is_wrong_names_its_variable() {
        let config = parse(&[("INTERREX_NODE_NAME", "7"), ("INTERREX_POSTGRES_PORT", "5499")]).unwrap();
        assert_eq!((config.node.name.as_str(), config.postgres.port), ("7", 5499));
        for (variable, value, words) in [
            ("INTERREX_FAILOVER_PROBE", "1s", "unknown field `probe`"),
            ("INTERREX_POSTGRES_PORT", "0", "from 1 to 65535"),
            ("INTERREX_NODE_ADDRESS", "[::1]", "without a port"),
            ("INTERREX_PEERS_ADDRESS", "[::1]:7400", "[[peers]] is a list"),
        ] {
            let error = parse(&[(variable, value)]).unwrap_err();
            assert!(error.contains(variable) && error.contains(words), "{error}");
        }
        assert!(parse(&[("INTERREX_LOG", "debug"), ("INTERREX_NEW_MAIN", "2")]).is_ok());
    }

    #[test]
    fn every_path_is_relative_to_the_configuration_file() {
        let paths = [
            "cluster_secret_file",
            "node_journal",
            "rejoin_keep_in",
            "retention_segments",
            "postgres_data_dir",
            "postgres_bin_dir",
            "postgres_password_file",
            "postgres_replication_passfile",
            "postgres_log_file",
            "postgres_config_file",
            "redis_config_file",
            "redis_password_file",
            "redis_program",
        ]
        .map(|key| (format!("INTERREX_{}", key.to_uppercase()), format!("there/{key}")));
        let paths: Vec<(&str, &str)> =
            paths.iter().map(|(name, path)| (name.as_str(), path.as_str())).collect();
        let shown = format!("{:?}", parse(&paths).unwrap());
        for (_, path) in paths {
            assert!(shown.contains(&format!("\"/etc/interrex/{path}\"")), "{path}: {shown}");
        }
    }
}
