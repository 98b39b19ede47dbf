#!/bin/sh
# Brings {NAME} back as a standby of {MAIN}, by hand: for a node whose supervisor is gone.
# Made by `interrex rejoin {NAME} --script`. Read it, and set what differs on {NAME}, before you run it there,
# as root or as the user that PostgreSQL runs as. It can be run again; nothing that only {NAME} has is removed.
set -eu

data_dir={DATA_DIR}
programs={PROGRAMS}
config_file={CONFIG_FILE} # postgresql.conf, where it does not lie in the data directory
kept={KEPT} # the old directory ends here
log={LOG}
supervisor_lock={LOCK} # held by a supervisor that runs
main_host={MAIN_HOST}
main_port={MAIN_PORT}
database={DATABASE}
admin={ADMIN} # superuser, as the supervisors log in
admin_password_file={ADMIN_PASSWORD_FILE} # holds its password alone; '' where none is asked for
replicator={REPLICATOR}
replicator_passfile={REPLICATOR_PASSFILE} # libpq's; '' where none is asked for
slot={SLOT}
application={APPLICATION}
copy={COPY} # yes: copy {MAIN}'s data even where a rewind would do

say() { printf '== %s\n' "$*" >&2; }
give_up() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

[ -f "$data_dir/PG_VERSION" ] || give_up "$data_dir is not a PostgreSQL data directory"
# where it is a link, what it leads to is replaced; PostgreSQL starts through the link, as ever
configured=$data_dir
data_dir=$(readlink -f "$configured")
for leftover in "$data_dir.rewinding" "$data_dir.incoming"; do
  [ ! -e "$leftover" ] || give_up "$leftover: a supervisor's rejoin was cut off; start the supervisor, and: interrex rejoin"
done
for file in "$(dirname "$supervisor_lock")" "$supervisor_lock"; do
  [ ! -e "$file" ] || [ -r "$file" ] || give_up "$file cannot be examined: run this script as root"
done
command -v flock >/dev/null || give_up "flock is missing (package util-linux)"
if [ -e "$supervisor_lock" ] && [ ! -r "$supervisor_lock" ]; then
  give_up "$supervisor_lock cannot be read: run this script as the user that the supervisor runs as"
fi
# opened to read, for flock itself would make the file where there is none
if [ -e "$supervisor_lock" ] && ! (flock -n 9) 9<"$supervisor_lock"; then
  give_up "a supervisor runs here ($supervisor_lock is held); this script is for a node without one: interrex rejoin {NAME}"
fi
owner=$(stat -c %U "$data_dir")
[ "$owner" != root ] || give_up "$data_dir belongs to root, and PostgreSQL does not run as root: chown it to the user that PostgreSQL runs as"
as_owner() {
  if [ "$(id -un)" = "$owner" ]; then "$@"; else runuser -u "$owner" -- "$@"; fi
}
cd /
# Root follows no link, and touches no name, that the owner may have put there: it could lead anywhere. What the owner may do is
# done with the owner's rights; root acts only in a folder that the owner can change nothing in, nor on the way to it.
existing() {
  way=$1
  while [ ! -e "$way" ] && [ ! -L "$way" ]; do way=$(dirname "$way"); done
  printf '%s\n' "$way"
}
# says what is the owner's to change
only_roots() (
  way=$1 last=${2:-yes}
  while :; do
    if [ "$(stat -c %U "$way" 2>/dev/null)" = "$owner" ]; then
      printf '%s\n' "$way"
      exit 1
    elif [ -L "$way" ]; then
      target=$(readlink "$way")
      case $target in /*) ;; *) target=${way%/*}/$target ;; esac
      only_roots "$target" "$last" || exit 1
    elif as_owner test -w "$way" && { [ "$last" = yes ] || [ ! -k "$way" ]; }; then
      # in a folder like /tmp, what is there and is root's stays where it is
      printf '%s\n' "$way"
      exit 1
    fi
    [ "$way" != / ] || exit 0
    way=$(dirname "$way") last=no
  done
)
# who makes, renames and removes what lies in a folder
acts_in() {
  if as_owner test -w "$1"; then
    echo owner
  elif [ "$(id -u)" != 0 ]; then
    give_up "$owner may not write in $1: let $owner do so, or run this as root"
  elif loose=$(only_roots "$1"); then
    echo root
  else
    give_up "$owner may not write in $1, and root does not do it instead, because $owner can change $loose, and put a link there to" \
      "anywhere. Name the real folder in this script, where no link is on the way, and let $owner write in it (chown $owner)"
  fi
}
in_folder() {
  actor=$(acts_in "$1") || exit 1
  shift
  if [ "$actor" = owner ]; then as_owner "$@"; else "$@"; fi
}
# a folder of the owner's; what is there already keeps its owner
folder() {
  for wanted; do
    ! as_owner test -d "$wanted" || continue
    [ ! -e "$wanted" ] && [ ! -L "$wanted" ] ||
      give_up "$wanted is there, and is not a folder that $owner can enter: find out what it is, and move it out of the way"
    actor=$(acts_in "$(existing "$wanted")") || exit 1
    if [ "$actor" = owner ]; then
      as_owner mkdir -p -m 700 "$wanted"
    else
      (umask 022 && mkdir -p "$(dirname "$wanted")")
      mkdir -m 700 "$wanted"
      chown -h "$owner" "$wanted"
    fi
  done
}
# removes a folder of the owner's: root takes an empty one out of its own
away() {
  as_owner rm -rf "$1" 2>/dev/null || true
  [ -e "$1" ] || [ -L "$1" ] || return 0
  in_folder "$(dirname "$1")" rmdir "$1" || give_up "$1 is in the way: find out what it is, and remove it"
}
# The old directory goes into a folder of the owner's. Root enters that first: a path to it could lead elsewhere meanwhile.
keep_in() {
  actor=$(acts_in "$(dirname "$data_dir")") || exit 1
  if [ "$actor" = owner ]; then
    as_owner mv -T "$data_dir" "$1/pgdata"
    return
  fi
  (
    volume=$(stat -c %d "$(dirname "$data_dir")")
    cd -P "$1" && [ "$(stat -c '%U %d' .)" = "$owner $volume" ] && mv -T "$data_dir" pgdata
  ) || give_up "$data_dir could not be renamed to $1/pgdata: $1 must be a folder of $owner's, on the same volume"
}

# passwords go through a file that only the owner may read
secrets=$(mktemp -d)
trap 'rm -rf "$secrets"' EXIT
chmod 700 "$secrets"
passfile=$secrets/pgpass
: >"$passfile"
chmod 600 "$passfile"
if [ -n "$admin_password_file" ]; then
  printf '%s:%s:*:%s:%s\n' "$(printf %s "$main_host" | sed 's/:/\\:/g')" "$main_port" "$admin" "$(head -n 1 "$admin_password_file" | sed 's/[\\:]/\\&/g')" >"$passfile"
fi
[ "$(id -un)" = "$owner" ] || chown -h "$owner" "$passfile" "$secrets"

main="host=$main_host port=$main_port user=$admin dbname=$database connect_timeout=10 passfile=$passfile"
upstream="host=$main_host port=$main_port user=$replicator application_name=$application connect_timeout=5"
[ -z "$replicator_passfile" ] || upstream="$upstream passfile='$replicator_passfile'"
# settings that the owner of a database makes for its sessions must not hold for a superuser
pinned={PINNED}
ask_main() { as_owner env PGOPTIONS="$pinned" "$programs/psql" -XAtq -v ON_ERROR_STOP=1 -d "$main" -c "$1"; }
control() { as_owner "$programs/pg_controldata" -D "$1" | sed -n "s/^$2: *//p"; }

say "{MAIN} must be main, and of the same cluster"
[ "$(ask_main 'SELECT pg_is_in_recovery()')" = f ] || give_up "{MAIN} is not main"
theirs=$(ask_main 'SELECT system_identifier FROM pg_control_system()')
ours=$(control "$data_dir" 'Database system identifier')
[ "$ours" = "$theirs" ] || [ "$copy" = yes ] ||
  give_up "$data_dir belongs to another cluster ($ours, not $theirs); copy=yes replaces it, and keeps it"

# the postmaster's file, as it is here and as main itself reads its own
mains=$(ask_main "SELECT md5(pg_read_file('postmaster.pid'))")
if [ "$(as_owner cat "$data_dir/postmaster.pid" 2>/dev/null | md5sum | cut -d ' ' -f 1)" = "$mains" ]; then
  give_up "$data_dir is {MAIN}'s own, which is main: this script is for {NAME}"
fi

# whatever would stop it is found before anything is changed
if [ -n "$(ls -A "$data_dir/pg_tblspc")" ] || [ "$(ask_main 'SELECT count(*) FROM pg_tablespace')" != 2 ]; then
  give_up "the cluster has tablespaces outside the data directory, which no rename replaces: make the base backup by" \
    "hand, with pg_basebackup --tablespace-mapping"
fi
# a server that runs here removes files meanwhile
dead_links=$(find -L "$data_dir" -maxdepth 2 -type l 2>/dev/null || true)
[ -z "$dead_links" ] || [ "$copy" = yes ] ||
  give_up "links whose targets are missing: mount the targets, or remove the links:" "$dead_links"
if mountpoint -q "$data_dir" 2>/dev/null; then
  give_up "a volume is mounted right at $data_dir, which therefore cannot be renamed: move the data into a folder below it"
fi
new_log=
if [ -L "$data_dir/pg_wal" ]; then
  old_log=$(readlink -f "$data_dir/pg_wal") || give_up "$data_dir/pg_wal is a link whose target is missing: mount the target"
  ! mountpoint -q "$old_log" 2>/dev/null || give_up "$data_dir/pg_wal leads to $old_log, where a volume is mounted: there is no place" \
    "beside it for the log of a copy. Move the log into a folder below it, with PostgreSQL stopped, and let the link lead there"
  # where the link leads, the owner says: root makes nothing next to files that are not the owner's
  actor=$(acts_in "$(dirname "$old_log")") || exit 1
  [ "$actor" = owner ] || [ "$(stat -c %U "$old_log")" = "$owner" ] ||
    give_up "$data_dir/pg_wal leads to $old_log, which is not $owner's: correct the link, or chown $owner that folder"
  new_log=$(printf '%s' "$old_log" | sed -E 's/\.[0-9]{8}T[0-9]+Z$//').$(date -u +%Y%m%dT%H%M%S000Z)
  say "the WAL is in another folder; the WAL of the new directory will be in $new_log"
fi

# a rename keeps it, which needs the same volume
there=$kept
while [ ! -e "$there" ]; do there=$(dirname "$there"); done
if [ "$(stat -L -c %d "$there")" != "$(stat -c %d "$(dirname "$data_dir")")" ]; then
  say "$kept is on another volume than $data_dir: $data_dir.kept is used instead"
  kept=$data_dir.kept
fi
for there in "$(dirname "$data_dir")" "$(existing "$kept")"; do
  acts_in "$there" >/dev/null
done

say "PostgreSQL here stops"
as_owner "$programs/pg_ctl" -D "$data_dir" -m fast -w stop >&2 || true
state=0
as_owner "$programs/pg_ctl" -D "$data_dir" status >/dev/null 2>&1 || state=$?
# 3: no server runs
[ "$state" = 3 ] || give_up "PostgreSQL here does not stop (pg_ctl status: $state)"

say "{MAIN} keeps the WAL that is needed"
in_the_way=$(ask_main "SELECT 'a ' || slot_type || ' slot, used by ' || coalesce('process ' || active_pid, 'nobody')
                              || coalesce(' (' || application_name || ')', '')
                       FROM pg_replication_slots LEFT JOIN pg_stat_replication ON pid = active_pid
                       WHERE slot_name = '$slot'
                         AND (slot_type <> 'physical' OR active AND application_name IS DISTINCT FROM '$application')")
[ -z "$in_the_way" ] ||
  give_up "{MAIN} has $slot already, as $in_the_way: end that process, or drop the slot if no standby needs it"
# a slot whose WAL is gone is of no use any more
ask_main "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
          WHERE slot_name = '$slot' AND wal_status = 'lost' AND NOT active" >/dev/null
ask_main "SELECT pg_create_physical_replication_slot('$slot', true) WHERE NOT EXISTS
          (SELECT FROM pg_replication_slots WHERE slot_name = '$slot')" >/dev/null
ask_main 'CHECKPOINT'

# everything is made next to the old directory, which stays as it is until the end
new=$data_dir.by-script
away "$new"
folder "$new"
say "a copy of the old directory is rewound, or {MAIN}'s data are copied"
rewound=no
if [ "$copy" != yes ] && { [ -f "$data_dir/postgresql.conf" ] || [ -n "$config_file" ]; }; then
  # what a link leads to is copied too: WAL that two directories share would be rewound for both
  as_owner cp -aL --reflink=auto "$data_dir/." "$new/"
  # pg_rewind would not find the configuration, and that names the old directory
  case "$config_file:$(control "$new" 'Database cluster state')" in
    :* | *:"shut down"*) ;;
    *) as_owner "$programs/postgres" --single -D "$new" -c config_file="$config_file" -c data_directory="$new" \
      -c wal_keep_size=1TB template1 </dev/null >/dev/null || true ;;
  esac
  if as_owner env PGOPTIONS="$pinned" "$programs/pg_rewind" -D "$new" --source-server "$main" --progress; then
    rewound=yes
    # it takes two timelines of the same number for one, also those of two servers that were both main
    if [ "$(control "$new" 'Database cluster state')" = 'shut down' ] &&
      [ "$(control "$new" "Latest checkpoint's TimeLineID")" = "$(ask_main 'SELECT timeline_id FROM pg_control_checkpoint()')" ]; then
      say "pg_rewind cannot distinguish the two timelines, which have the same number: {MAIN}'s data are copied"
      rewound=no
    fi
  fi
  if [ "$rewound" = no ]; then
    away "$new"
    folder "$new"
  fi
fi
[ "$rewound" = yes ] ||
  as_owner "$programs/pg_basebackup" -D "$new" -d "$upstream" -X stream -S "$slot" --checkpoint=fast --progress

# {NAME}'s own settings, without those that a standby must not bring along
for file in postgresql.conf postgresql.auto.conf pg_hba.conf pg_ident.conf conf.d server.crt server.key; do
  if [ -e "$data_dir/$file" ]; then
    as_owner rm -rf "${new:?}/$file"
    as_owner cp -a "$data_dir/$file" "$new/"
  fi
done
settings='primary_conninfo|primary_slot_name|promote_trigger_file|recovery_target[a-z_]*|synchronous_standby_names|default_transaction_read_only'
as_owner touch "$new/postgresql.auto.conf"
# by bytes: its values may be of any encoding
as_owner env LC_ALL=C sed -i -E "/^[[:space:]]*($settings)([^a-z_]|\$)/Id" "$new/postgresql.auto.conf"
[ -z "$(as_owner tail -c 1 "$new/postgresql.auto.conf")" ] || echo | as_owner tee -a "$new/postgresql.auto.conf" >/dev/null
# what would end its recovery in another file is overridden here; from 16 on there is no promote_trigger_file
{
  printf "primary_conninfo = '%s'\nprimary_slot_name = '%s'\n" "$(printf %s "$upstream" | sed "s/'/''/g")" "$slot"
  printf "%s = ''\n" recovery_target recovery_target_lsn recovery_target_name recovery_target_time recovery_target_xid
  [ "$(as_owner cat "$new/PG_VERSION")" -ge 16 ] || echo "promote_trigger_file = ''"
  echo "recovery_target_action = 'pause'"
} | as_owner tee -a "$new/postgresql.auto.conf" >/dev/null
restores=$(as_owner "$programs/postgres" -D "$new" ${config_file:+-c config_file="$config_file" -c data_directory="$new"} \
  -C restore_command)
if [ -n "$restores" ]; then
  # the latest timeline in an archive may be one that {MAIN} never had
  timeline=$(ask_main "SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)")
  if [ "$timeline" != 00000001 ]; then
    ask_main "SELECT pg_read_file('pg_wal/$timeline.history')" | as_owner tee "$new/pg_wal/$timeline.history" >/dev/null
  fi
  echo "recovery_target_timeline = '$((0x$timeline))'" | as_owner tee -a "$new/postgresql.auto.conf" >/dev/null
fi
as_owner touch "$new/standby.signal"
as_owner rm -f "$new/recovery.signal"
if [ -n "$new_log" ]; then
  folder "$new_log"
  as_owner cp -a "$new/pg_wal/." "$new_log/"
  as_owner rm -rf "$new/pg_wal"
  as_owner ln -s "$new_log" "$new/pg_wal"
fi
sync

place=$kept/$(date -u +%Y%m%dT%H%M%SZ)-$ours-by-hand
say "the old directory is kept in $place/pgdata"
folder "$kept" "$place"
if [ -L "$data_dir/pg_wal" ] && [ -d "$data_dir/pg_wal" ]; then
  log_folder=$(readlink -f "$data_dir/pg_wal")
  say "its WAL is kept in place, in $log_folder"
  # a relative link would lead to nothing from there
  as_owner ln -sfn "$log_folder" "$data_dir/pg_wal"
fi
keep_in "$place"
in_folder "$(dirname "$data_dir")" mv -T "$new" "$data_dir"

say "PostgreSQL here starts"
started=yes
as_owner "$programs/pg_ctl" -D "$configured" ${config_file:+-o "-c config_file='$config_file'"} -l "$log" -w start >&2 || started=no

# it catches up meanwhile
say "writing the checksums of what is kept: $place/SHA256SUMS"
as_owner sh -c 'cd "$1" && find -L pgdata -type f -exec sha256sum {} + >SHA256SUMS.unfinished &&
  sync SHA256SUMS.unfinished && mv SHA256SUMS.unfinished SHA256SUMS' sh "$place" ||
  say "no checksums were written: a file could not be read, or the list could not be written; $place/pgdata itself is complete"
[ "$started" = yes ] || give_up "PostgreSQL here does not start; see $log"
waited=0
while [ "$(ask_main "SELECT count(*) FROM pg_stat_replication JOIN pg_replication_slots ON active_pid = pid
                     WHERE slot_name = '$slot' AND state = 'streaming'")" != 1 ]; do
  [ "$waited" -lt 60 ] || give_up "{MAIN} does not stream to {NAME} after a minute; see $log"
  sleep 1
  waited=$((waited + 1))
done
say "{NAME} follows {MAIN}. Now start its supervisor, and: interrex rejoin {NAME}"
