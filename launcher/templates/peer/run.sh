trap 'exit 143' TERM  # while this waits: a shell that is process 1 would not end by itself
if ! test -e {{ own }}/approval.json; then
  until grep -qs members {{ genesis }}; do sleep 1; done
  btard-node approve {{ own }} {{ genesis }} --only-if {{ run }} >&2
fi
exec btard-node run {{ own }} --wait 1h --http 0.0.0.0:{{ metrics_port }}{{ " --stay" if stay }}
