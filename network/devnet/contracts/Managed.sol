// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

interface IController {
    function owner() external view returns (address);
    function paused() external view returns (bool);
    function getContract(bytes32 id) external view returns (address);
}

interface IRoundsManager {
    function currentRound() external view returns (uint256);
    function currentRoundInitialized() external view returns (bool);
    function currentRoundLocked() external view returns (bool);
    function blockHashForRound(uint256 round) external view returns (bytes32);
}

interface IBondingManager {
    function isActiveTranscoder(address transcoder) external view returns (bool);
    function getTranscoderPoolSize() external view returns (uint256);
    function updateTranscoderWithFees(address transcoder, uint256 fees, uint256 round) external;
    function setCurrentRoundTotalActiveStake() external;
}

interface IMinter {
    function depositETH() external payable returns (bool);
    function trustedWithdrawETH(address payable to, uint256 amount) external;
    function setCurrentRewardTokens() external;
}

interface IToken {
    function mint(address to, uint256 amount) external;
    function transfer(address to, uint256 amount) external returns (bool);
    function transferFrom(address from, address to, uint256 amount) external returns (bool);
}

/// What a contract under the Controller shares with the others: the way to them, and the pause.
abstract contract Managed {
    event SetController(address controller);
    event ParameterUpdate(string param);

    IController public controller;

    modifier whenSystemNotPaused() {
        require(!controller.paused(), "system is paused");
        _;
    }

    modifier whenRoundInitialized() {
        require(roundsManager().currentRoundInitialized(), "current round is not initialized");
        _;
    }

    modifier onlyControllerOwner() {
        require(msg.sender == controller.owner(), "caller must be Controller owner");
        _;
    }

    constructor(address _controller) {
        controller = IController(_controller);
        emit SetController(_controller);
    }

    function setController(address _controller) external {
        require(msg.sender == address(controller), "caller must be Controller");
        controller = IController(_controller);
        emit SetController(_controller);
    }

    function roundsManager() internal view returns (IRoundsManager) {
        return IRoundsManager(controller.getContract(keccak256("RoundsManager")));
    }

    function bondingManager() internal view returns (IBondingManager) {
        return IBondingManager(controller.getContract(keccak256("BondingManager")));
    }

    function minter() internal view returns (IMinter) {
        return IMinter(controller.getContract(keccak256("Minter")));
    }

    function token() internal view returns (IToken) {
        return IToken(controller.getContract(keccak256("LivepeerToken")));
    }
}
