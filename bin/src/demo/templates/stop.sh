#!/usr/bin/env bash
# Stops everything that still runs of this demo: supervisors first, for they would start their servers again.
# A process is known by the demo's mark in its environment, or by being one of the servers and living in this
# folder; no other one is touched. Made by `interrex demo --keep`.
set -u
folder={FOLDER}

usage() {
  cat <<HELP
Usage: $0 [--remove]

Stops every process of the demo in $folder.
  --remove   removes the folder afterwards
HELP
}

remove=no
case "${1-}" in
  '') ;;
  --remove) remove=yes ;;
  -h | --help) usage; exit 0 ;;
  *) usage >&2; exit 2 ;;
esac

# Prints PID NAME PARENT of every process of the folder.
ours() {
  local at pid name parent state rest
  for at in /proc/[0-9]*; do
    pid=${at#/proc/}
    [[ $pid == "$$" || $pid == "$BASHPID" ]] && continue
    { read -r rest <"$at/stat"; } 2>/dev/null || continue
    name=${rest#*(} name=${name%)*}
    read -r state parent _ <<<"${rest##*) }"
    [[ $state == Z ]] && continue
    if belongs "$at" "$name"; then echo "$pid $name $parent"; fi
  done
}

belongs() { # /proc/PID NAME
  local word
  while IFS= read -r -d '' word; do
    case $word in "INTERREX_SANDBOX=$folder" | "INTERREX_SANDBOX=$folder"/*) return 0 ;; esac
  done 2>/dev/null <"$1/environ"
  local words=" $(tr '\0' ' ' 2>/dev/null <"$1/cmdline")"
  case $2 in
    postgres | redis-server | freeradius)
      case $(readlink "$1/cwd" 2>/dev/null)/ in "$folder"/*) return 0 ;; esac
      [[ $words == *" $folder/"* ]]
      ;;
    interrex*) [[ $words == *" supervise "*"$folder/"* ]] ;; # one that was started by hand
    *) return 1 ;;
  esac
}

# Waits until none of the named programs is left, at most $1 seconds.
gone() { # SECONDS PATTERN
  local end=$((SECONDS + $1))
  while ours | grep -Eq "^[0-9]+ ($2) "; do
    [[ $SECONDS -ge $end ]] && return 1
    sleep 0.1
  done
}

end() { # SIGNAL PATTERN
  local pid name parent
  while read -r pid name parent; do
    # PostgreSQL's first process ends the others
    if [[ $name == postgres && $(cat "/proc/$parent/comm" 2>/dev/null) == postgres ]]; then continue; fi
    echo "stopping $name (process $pid)"
    kill -"$1" "$pid" 2>/dev/null
  done < <(ours | grep -E "^[0-9]+ ($2) ")
}

end TERM 'interrex.*'
gone 10 'interrex.*'
end TERM 'freeradius|redis-server'
end INT 'postgres'
gone 20 '.*'
while read -r pid name parent; do
  echo "killing $name (process $pid)"
  kill -KILL "$pid" 2>/dev/null
done < <(ours)
if ! gone 5 '.*'; then
  echo "these live on; is this another user's demo?" >&2
  ours >&2
  exit 1
fi
echo "nothing of the demo runs any more"
if [[ $remove == yes ]]; then rm -rf -- "$folder"; else echo "its files: $folder"; fi
