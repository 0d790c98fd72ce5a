#!/bin/sh
# The guest's init and agent. It reads requests, one a line, from a virtio port:
#   run ID SCRIPT     SCRIPT in base64
#   kill ID
# and answers each script with a line "ID STATUS SIZE" and SIZE bytes of output.
export PATH=/bin:/sbin HOME=/ LD_LIBRARY_PATH=@LIBRARIES@
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
while read -r module; do
	echo "init: $module"
	insmod "/modules/$module.ko" || echo "init: no module $module"
done </etc/modules

port=/dev/vport0p1
echo "init: wait for $port"
until [ -c $port ]; do usleep 10000; done
mkdir /run/job
mkfifo /run/done
exec 3<>$port 4<>/run/done

# One writer, so that answers do not mix.
while read -r id status; do
	out=/run/job/$id/out
	echo "$id $status $(wc -c <$out)"
	cat $out
	rm -r /run/job/$id
done <&4 >&3 &

job() {
	setsid sh /run/job/$1/script >/run/job/$1/out 2>&1 </dev/null 3>&- 4>&- &
	echo $! >/run/job/$1/pid
	wait $!
	echo "$1 $?" >&4
}

echo "ready $(uname -r)" >&3
while read -r verb id script; do
	case $verb in
	run)
		mkdir /run/job/$id
		echo "$script" | base64 -d >/run/job/$id/script
		job $id &
		;;
	kill)
		kill -9 -$(cat /run/job/$id/pid)
		;;
	esac
done <&3
echo "init: the host hung up"
poweroff -f
