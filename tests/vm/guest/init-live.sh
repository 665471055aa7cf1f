#!/bin/sh
# init of a guest whose memory QEMU dumps. Kernel command line: mode=panic panics it, maps=N maps N zero pages.
export PATH=/bin:/sbin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
insmod /mod/qemu_fw_cfg.ko 2>/dev/null # hands VMCOREINFO to QEMU's -device vmcoreinfo
sh -c 'while :; do sleep 1; done' &
VMCORE_MARKER=VMCORE-MARKER-0123456789abcdef setsid sleep 99999 &
echo "vmcore-marker: hello from $(uname -r)" >/dev/kmsg
sleep 1
for word in $(cat /proc/cmdline); do
	case $word in
	maps=*) exec /bin/manymaps "${word#maps=}" ;;
	mode=panic) echo c >/proc/sysrq-trigger ;;
	esac
done
echo "READY $(uname -r)"
while :; do sleep 1000; done
