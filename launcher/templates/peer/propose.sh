test -e {{ own }}/secrets.json || btard-node init {{ own }} >&2
btard-node propose {{ own }} --address "$ADDRESS" > {{ proposal }}
