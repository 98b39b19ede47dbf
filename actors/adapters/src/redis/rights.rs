//! Whether Redis lets the supervisor give the commands that a change of main needs: `rename-command` and ACLs may forbid
//! them.

use redis::{Value, aio::MultiplexedConnection};

/// What is given, and the arguments by which an ACL is asked.
const NEEDED: [(&str, &[&str]); 7] = [
    ("INFO", &["replication"]),
    ("CONFIG", &["REWRITE"]),
    ("REPLICAOF", &["NO", "ONE"]),
    ("FAILOVER", &["ABORT"]),
    ("CLIENT", &["KILL", "TYPE", "normal"]),
    ("CLIENT", &["PAUSE", "1", "WRITE"]),
    ("SHUTDOWN", &["SAVE"]),
];

/// The commands that are not there or not allowed; none where Redis tells neither. Changes nothing.
///
/// # Errors
/// It does not answer.
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
    // since 7.0 it can be asked what an ACL would say
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

/// An array of Redis' that stands for no command.
fn is_nothing(known: &Value) -> bool {
    match known {
        Value::Nil => true,
        Value::Array(values) => values.is_empty(),
        _ => false,
    }
}

/// An answer, or nothing where this question itself is refused.
fn told<T>(answer: redis::RedisResult<T>) -> redis::RedisResult<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.code().is_some() => Ok(None),
        Err(error) => Err(error),
    }
}
