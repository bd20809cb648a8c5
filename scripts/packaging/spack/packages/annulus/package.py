# Spack: installs the tarball of scripts/package. Not tried where it was written, which had no Spack.
#
#   scripts/package
#   spack repo add scripts/packaging/spack
#   cd dist && spack install --no-checksum annulus && spack load annulus
#
# `cd`: the tarball is looked for in the folder that spack is called in.
import os

from spack.package import *


class Annulus(Package):
    """Exact attention over sequences that are spread over processes, on CPU clusters."""

    manual_download = True
    url = f"file://{os.getcwd()}/annulus-0.1.0-linux-x86_64.tar.gz"

    license("Apache-2.0")

    version("0.1.0")

    # The build with Open MPI; both have libmpi.so.40.
    depends_on("openmpi@4:5", type=("link", "run"))

    requires("platform=linux", "target=x86_64:")

    def install(self, spec, prefix):
        install_tree(".", prefix)

    def setup_run_environment(self, env):
        # It was linked elsewhere, and names no folder of its libraries.
        env.prepend_path("LD_LIBRARY_PATH", self.spec["openmpi"].prefix.lib)
        env.prepend_path("XDG_DATA_DIRS", self.prefix.share)
        env.prepend_path("FPATH", self.prefix.share.join("zsh/site-functions"))
        env.set("ANNULUS", self.prefix.bin.annulus)

    @run_after("install")
    @on_package_attributes(run_tests=True)
    def says_its_version(self):
        Executable(self.prefix.bin.annulus)("--version")
