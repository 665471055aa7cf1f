#!/bin/bash
# dracut module: farcored into the initramfs of a crash kernel (Fedora and its like: add it by `dracut_args --add farcore` in
# /etc/kdump.conf). The network is dracut's own, told by rd.neednet=1 and ip=.

kdump=/usr/share/farcore/kdump

check() {
	[[ -r /etc/farcore/kdump.conf && -x $kdump/build ]] || return 1
	return 255 # only where it is asked for
}

depends() {
	echo network
}

installkernel() {
	local FARCORE_MODULES=
	# shellcheck source=/dev/null
	. /etc/farcore/kdump.conf
	# shellcheck disable=SC2086
	[[ -z $FARCORE_MODULES ]] || instmods $FARCORE_MODULES
}

install() {
	local FARCORE_IP=dhcp
	# shellcheck source=/dev/null
	. /etc/farcore/kdump.conf
	# shellcheck disable=SC2154 # dracut's
	"$kdump/build" "$initdir" || return 1
	mkdir -p "$initdir/etc/cmdline.d"
	echo "rd.neednet=1 ip=$FARCORE_IP" >"$initdir/etc/cmdline.d/90farcore.conf"
	inst_multiple sleep mkdir rm
	# Before anything is mounted or saved; the network is up by then.
	# shellcheck disable=SC2154
	inst_hook pre-mount 10 "$moddir/serve.sh"
}
