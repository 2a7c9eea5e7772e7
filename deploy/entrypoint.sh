#!/bin/sh
# The image's entry point. TGI's image takes the launcher's arguments, so what doesn't begin with
# the name of a command of ours goes to `tgi serve`.
case "${1-}" in
    serve | health | bench | download | quantize | print-schema) exec tgi "$@" ;;
    *) exec tgi serve "$@" ;;
esac
