"""The cluster in containers: one image, one service per node, a roles service before them and an observer beside them.

`places` says what lies where, `bundle` what a run consists of and who may see which part of it, `emit` writes the
compose file, `roles` and `observer` are the two services, `mirror` copies what nodes write, `engine` talks to Docker.
`kernel`, `netns`, `shaper` and `netqueue` are `--shaping kernel`.
"""
