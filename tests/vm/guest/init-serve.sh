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

# While farcored runs: what its processes take, the most that each had, and the least that was left beside them. With the
# caches goes the inode of /proc/vmcore, and with it its modification time, unless somebody has it open.
measure() {
	least=$(sed -n 's/^MemTotal: *\([0-9]*\).*/\1/p' /proc/meminfo)
	while sleep 5; do
		echo 3 >/proc/sys/vm/drop_caches
		figures=$(for process in /proc/[0-9]*; do
			[ ! "$process/exe" -ef $home/lib/loader ] || sed -n "s/^\(VmHWM\|Rss\|Pss\|Private_Dirty\):[[:space:]]*\([0-9]*\).*/\1=\2/p" \
				"$process/status" "$process/smaps_rollup" | tr '\n' ' '
		done 2>/dev/null)
		[ -n "$figures" ] || continue
		left=$(sed -n 's/^MemAvailable: *\([0-9]*\).*/\1/p' /proc/meminfo)
		[ "$left" -ge "$least" ] || least=$left
		echo "FARCORED_KIB $figures MEMORY_LEFT_KIB $least" >/run/measured
	done
}

echo "CRASHKERNEL $(uname -rm)"
PYTHONHOME=$home $home/lib/loader --library-path $home/lib $home/lib/python -OO -sSP /etc/before_2007.py
measure &
started=$(uptime)
/usr/lib/farcore-kdump/serve-vmcore udhcpc -i eth0 -n -q -s /etc/udhcpc
echo "KDUMP_ACTION after $(($(uptime) - started)) s"
cat /run/measured
echo "VMCORE_SIZE=$(stat -c %s /proc/vmcore)"
if [ -s /etc/samples ]; then
	for block in $(cat /etc/samples); do
		echo "VMCORE_SAMPLE $block $(dd if=/proc/vmcore bs=65536 skip="$block" count=2 2>/dev/null | sha256sum | head -c 64)"
	done
else
	dd if=/proc/vmcore of=/dev/vda bs=1M conv=fsync 2>/dev/null && echo "VMCORE_SHA256=$(sha256sum /proc/vmcore | head -c 64)"
fi
echo KDUMP_DONE
poweroff -f
