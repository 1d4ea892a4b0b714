#!/bin/sh
# Says what became of a job of Slurm's, as the executor cluster-generic wants it: success, running or failed.
state=$(scontrol --oneliner show job "$1" 2>/dev/null | grep -o 'JobState=[A-Z_]*')
case ${state#JobState=} in
  COMPLETED) echo success ;;
  PENDING | CONFIGURING | RUNNING | COMPLETING | SUSPENDED | REQUEUED) echo running ;;
  *) echo failed ;;
esac
