#!/usr/bin/env bash
# Stops everything that still runs of this demo: supervisors first, for they would start their servers again.
# A process is known by the demo's mark in its environment, or by being a server or supervisor that works in
# this folder or has its files open; no other one is touched. Made by `interrex demo --keep`.
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

marks=(-e "INTERREX_SANDBOX=$folder")
for node in alpha beta gamma; do marks+=(-e "INTERREX_SANDBOX=$folder/$node"); done

# Prints PID NAME PARENT of every process of the demo.
ours() {
  local at name state parent
  for at in $({ marked; servers_in_folder; } | sort -u); do
    { read -r name <"$at/comm"; read -r stat <"$at/stat"; } 2>/dev/null || continue
    read -r state parent _ <<<"${stat##*) }"
    [[ $state == Z || $at == "/proc/$$" ]] || echo "${at#/proc/} $name $parent"
  done
}

marked() { grep -lzsxF "${marks[@]}" /proc/[0-9]*/environ | sed 's|/environ$||'; }

servers_in_folder() {
  local at
  for at in $(grep -lsxE 'postgres|redis-server|freeradius|interrex.*' /proc/[0-9]*/comm | sed 's|/comm$||'); do
    if lives_here "$at"; then echo "$at"; fi
  done
}

lives_here() { # /proc/PID
  case $(readlink "$1/cwd" 2>/dev/null)/ in "$folder"/*) [[ $(cat "$1/comm" 2>/dev/null) != interrex* ]] && return ;; esac
  # a supervisor that was started by hand has its journal open; `interrex events --follow` is none
  tr '\0' ' ' 2>/dev/null <"$1/cmdline" | grep -qE '^(postgres|redis|[^ ]*freeradius|[^ ]* supervise)' || return
  find "$1/fd" -lname "$folder/*" 2>/dev/null | grep -q .
}

# Waits until none of those names is left, at most so many seconds.
gone() { # SECONDS NAMES
  local end=$((SECONDS + $1))
  while ours | grep -Eq "^[0-9]+ ($2) "; do
    [[ $SECONDS -ge $end ]] && return 1
    sleep 0.1
  done
}

end() { # SIGNAL NAMES
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
if ! gone 20 '.*'; then end KILL '.*'; fi
if ! gone 5 '.*'; then
  echo "these processes still run; do they belong to another user?" >&2
  ours >&2
  exit 1
fi
echo "no process of the demo runs any more"
if [[ $remove == yes ]]; then rm -rf -- "$folder"; else echo "its files: $folder"; fi
