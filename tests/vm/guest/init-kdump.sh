#!/bin/sh
# init of both kernels of a kdump: the first loads the second and panics; the second copies /proc/vmcore to a disk.
export PATH=/bin:/sbin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null

if [ -e /proc/vmcore ]; then
	echo "CRASHKERNEL $(uname -rm)"
	for module in $(cat /mod/order); do insmod "/mod/$module.ko"; done
	echo "VMCORE_SIZE=$(stat -c %s /proc/vmcore)"
	dd if=/proc/vmcore of=/dev/vda bs=1M conv=fsync 2>/dev/null && echo "VMCORE_SHA256=$(sha256sum /proc/vmcore | head -c 64)"
	echo KDUMP_DONE
	poweroff -f
fi

insmod /mod/qemu_fw_cfg.ko 2>/dev/null
mount -t tmpfs tmpfs /tmp
echo "vmcore-marker: a file in tmpfs" >/tmp/marker
sh -c 'while :; do sleep 1; done' </tmp/marker &
VMCORE_MARKER=VMCORE-MARKER-0123456789abcdef setsid sleep 99999 &
echo "vmcore-marker: hello from $(uname -r)" >/dev/kmsg
sleep 1
if ! grep -q ' _text$' /proc/kallsyms; then # arm64: kexec-tools 2.0.25 asks for it, to tell two layouts apart
	sed -n '/ _stext$/{p;s/_stext/_text/p;q;}' /proc/kallsyms >/tmp/kallsyms
	mount -o bind /tmp/kallsyms /proc/kallsyms
fi
# shellcheck disable=SC2046 # one word or none
kexec $(cat /boot/headers) -p /boot/vmlinuz --initrd=/boot/crash.img --command-line="$(cat /boot/cmdline)" || {
	echo KEXEC_FAILED
	poweroff -f
}
echo c >/proc/sysrq-trigger
