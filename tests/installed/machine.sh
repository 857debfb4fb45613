#!/bin/bash
# Becomes process 1 of a machine of its own: systemd, over the host's own files, none of which it can
# change. Run by machine.py in fresh namespaces: machine.sh boot|try FOLDER [SHARED...]
# FOLDER is an empty one to work in; each SHARED folder is there at the same path, for reading. `try`
# ends where systemd would begin.
set -euo pipefail

what=$1 folder=$2 root=$2/root
shift 2

mount --make-rprivate /
mount -t tmpfs -o mode=755 machine "$folder"
mkdir "$folder"/{changes,scratch,root}
mount -t overlay -o "lowerdir=/,upperdir=$folder/changes,workdir=$folder/scratch" overlay "$root"

mount -t proc proc "$root/proc"
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root/sys"
mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755,nosuid,strictatime tmpfs "$root/dev"
for device in null:3 zero:5 full:7 random:8 urandom:9; do
  mknod -m 666 "$root/dev/${device%:*}" c 1 "${device#*:}"
done
mknod -m 666 "$root/dev/tty" c 5 0
mkdir "$root"/dev/{pts,shm,mqueue}
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
for name in stdin:0 stdout:1 stderr:2; do
  ln -s "/proc/self/fd/${name#*:}" "$root/dev/${name%:*}"
done
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
for shared in "$@"; do
  mkdir -p "$root$shared"
  mount --rbind -o ro "$shared" "$root$shared"
done

[[ $what == boot ]] || exit 0

# None of the host's own services, and no ban on starting one.
rm -rf "$root"/etc/systemd/system/* "$root"/usr/lib/systemd/system/multi-user.target.wants/*
rm -f "$root/usr/sbin/policy-rc.d"
: > "$root/etc/machine-id"
echo machine > "$root/etc/hostname"
# What a package's manual page sets off takes longer than its whole installation.
rm -f "$root/var/lib/man-db/auto-update"

cd "$root"
pivot_root . mnt
umount -l /mnt
cd /
mount --make-rshared / # or LoadCredential= passes empty folders
exec env -i container=machine LANG=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin \
  /lib/systemd/systemd --system --log-target=journal
