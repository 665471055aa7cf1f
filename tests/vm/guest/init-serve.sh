#!/bin/sh
# shellcheck disable=SC3013,SC2013 # busybox
# init of a crash kernel that serves its /proc/vmcore first, and then does what init-kdump.sh does.
export PATH=/bin:/sbin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /run
for module in $(cat /mod/order); do insmod "/mod/$module.ko"; done

home=/usr/lib/farcore
uptime() {
	read -r up _ </proc/uptime
	echo "${up%%.*}"
}

# Once farcored has answered for a while: what it takes, and what is left.
measure() {
	sleep 60
	for process in /proc/[0-9]*; do
		[ ! "$process/exe" -ef $home/lib/loader ] || sed -n 's/^\(Rss\|Pss\|Private_Dirty\): *\(.*\)/FARCORED_\1=\2/p' "$process/smaps_rollup"
	done
	sed -n 's/^\(MemTotal\|MemAvailable\): *\(.*\)/\1=\2/p' /proc/meminfo
}

echo "CRASHKERNEL $(uname -rm)"
PYTHONHOME=$home $home/lib/loader --library-path $home/lib $home/lib/python -OO -sSP /etc/before_2007.py
measure &
started=$(uptime)
/usr/lib/farcore-kdump/serve-vmcore udhcpc -i eth0 -n -q -s /etc/udhcpc
echo "KDUMP_ACTION after $(($(uptime) - started)) s"
echo "VMCORE_SIZE=$(stat -c %s /proc/vmcore)"
dd if=/proc/vmcore of=/dev/vda bs=1M conv=fsync 2>/dev/null && echo "VMCORE_SHA256=$(sha256sum /proc/vmcore | head -c 64)"
echo KDUMP_DONE
poweroff -f
