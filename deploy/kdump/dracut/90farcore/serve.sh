#!/bin/sh
# dracut's pre-mount hook, which is sourced: a process of its own, so that nothing of ours stays behind.
/usr/lib/farcore-kdump/serve-vmcore
