//! Whether Redis accepts the commands that a change of main needs: `rename-command` and ACLs may forbid them.

use redis::{Value, aio::MultiplexedConnection};

/// The commands, and the arguments with which the ACL is checked.
const NEEDED: [(&str, &[&str]); 7] = [
    ("INFO", &["replication"]),
    ("CONFIG", &["REWRITE"]),
    ("REPLICAOF", &["NO", "ONE"]),
    ("FAILOVER", &["ABORT"]),
    ("CLIENT", &["KILL", "TYPE", "normal"]),
    ("CLIENT", &["PAUSE", "1", "WRITE"]),
    ("SHUTDOWN", &["SAVE"]),
];

/// The commands that are missing or not allowed, each with the reason; none if Redis does not report it. Changes nothing.
///
/// # Errors
/// Redis does not answer.
pub async fn lacking(connection: &mut MultiplexedConnection) -> redis::RedisResult<Vec<String>> {
    let mut question = redis::cmd("COMMAND");
    question.arg("INFO");
    for (command, _) in NEEDED {
        question.arg(command);
    }
    let known: Option<Vec<Value>> = told(question.query_async(connection).await)?;
    let mut lacking = Vec::new();
    for ((command, _), known) in NEEDED.iter().zip(known.unwrap_or_default()) {
        if is_nothing(&known) {
            note(&mut lacking, format!("{command} is renamed or disabled (rename-command)"));
        }
    }
    // since 7.0 Redis can check an ACL without running the command
    let user: Option<String> = told(redis::cmd("ACL").arg("WHOAMI").query_async(connection).await)?;
    let Some(user) = user else { return Ok(lacking) };
    for (command, arguments) in NEEDED {
        let mut question = redis::cmd("ACL");
        question.arg("DRYRUN").arg(&user).arg(command);
        for argument in arguments {
            question.arg(*argument);
        }
        let answer: Option<String> = told(question.query_async(connection).await)?;
        if let Some(words) = answer.filter(|words| words.contains("no permission")) {
            note(&mut lacking, format!("{command} is not allowed: {words}"));
        }
    }
    Ok(lacking)
}

fn note(lacking: &mut Vec<String>, words: String) {
    if !lacking.contains(&words) {
        lacking.push(words);
    }
}

/// Whether an answer means that there is no such command.
fn is_nothing(known: &Value) -> bool {
    match known {
        Value::Nil => true,
        Value::Array(values) => values.is_empty(),
        _ => false,
    }
}

/// An answer, or nothing if Redis refuses this question itself.
fn told<T>(answer: redis::RedisResult<T>) -> redis::RedisResult<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.code().is_some() => Ok(None),
        Err(error) => Err(error),
    }
}
